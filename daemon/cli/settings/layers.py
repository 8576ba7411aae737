"""What counts of all that was set: flags over the environment over a file over defaults.

One file is read, the first of its places in which it is. A file that does not pass, or a variable
that does not, is refused with its name and what is wrong; nothing is left out in silence.
"""

import argparse
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.cli.settings.names import (
    ENVIRONMENT_PREFIX,
    Configurable,
    Setting,
    file_places,
    nearest,
    plain,
    variable_of,
)
from protocol.errors import ConfigError

MAX_FILE_BYTES = 256 * 1024
DEFAULT = "default"
FLAG = "command line"
CONFIG_VARIABLE = "P2PD_CONFIG"


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place, by the settings' names."""

    origin: str
    values: dict[str, object]


@dataclass(frozen=True, slots=True)
class Settled:
    """A command's options with all that was set elsewhere."""

    options: argparse.Namespace
    """Defaults included."""
    flags: argparse.Namespace
    """What the command line alone said; None for the rest."""
    elsewhere: argparse.Namespace
    """What file and environment alone say; None for the rest."""
    layers: tuple[Layer, ...]
    """From the weakest to the strongest, without the defaults."""
    file: Path | None
    """The file that was read."""

    def origin(self, name: str) -> str:
        """Where the value that counts is from."""
        found = [layer.origin for layer in self.layers if name in layer.values]
        return found[-1] if found else DEFAULT

    def differing(self, other: "Settled") -> list[str]:
        """The settings that have another value in ``other``."""
        settings: Mapping[str, Setting] = self.options.configurable.settings
        return [
            name
            for name, one in settings.items()
            if getattr(self.options, one.action.dest) != getattr(other.options, one.action.dest)
        ]


def settle(options: argparse.Namespace, environ: Mapping[str, str]) -> Settled:
    """Put together what ``options``, parsed by a configurable parser, leave open.

    Raises :class:`ConfigError`.

    >>> from daemon.cli.settings.names import make_configurable
    >>> parser = argparse.ArgumentParser()
    >>> _ = parser.add_argument("--threads", type=int, default=0)
    >>> make_configurable(parser, "example")
    >>> environ = {"HOME": "/nowhere", "P2PD_THREADS": "2"}
    >>> from_variable = settle(parser.parse_args([]), environ)
    >>> from_variable.options.threads, from_variable.origin("threads")
    (2, 'environment')
    >>> settle(parser.parse_args(["--threads", "4"]), environ).options.threads
    4
    """
    configurable: Configurable = options.configurable
    layers: list[Layer] = []
    file = None
    if not options.no_config:
        file = find_file(options.config, configurable.command, environ)
        if file is not None:
            layers.append(read_file(file, configurable))
        layers.append(read_environment(environ, configurable))
    elsewhere = {name: value for layer in layers for name, value in layer.values.items()}
    settings = configurable.settings
    said = {
        name: value
        for name, one in settings.items()
        if (value := getattr(options, one.action.dest)) is not None
    }
    layers.append(Layer(FLAG, said))
    merged = argparse.Namespace(**vars(options))
    others = argparse.Namespace(**dict.fromkeys(vars(options)))
    for name, one in settings.items():
        value = said.get(name, elsewhere.get(name, one.default))
        setattr(merged, one.action.dest, value)
        setattr(others, one.action.dest, elsewhere.get(name))
    return Settled(merged, options, others, tuple(layers), file)


def find_file(name: str | None, command: str, environ: Mapping[str, str]) -> Path | None:
    """The file to read; None: there is none, and none was asked for.

    Raises :class:`ConfigError`.
    """
    asked_for = name or environ.get(CONFIG_VARIABLE) or ""
    places = file_places(asked_for or command, environ)
    found = next((path for path in places if os.path.lexists(path)), None)
    if found is None and asked_for:
        raise ConfigError(f"there is no {' and no '.join(map(str, places))}")
    return found


def read_file(path: Path, configurable: Configurable) -> Layer:
    """What it sets. Raises :class:`ConfigError` for the first mistake in it."""
    layer, mistakes = check_file(path, configurable)
    if mistakes:
        raise ConfigError(mistakes[0])
    return layer


def check_file(path: Path, configurable: Configurable) -> tuple[Layer, list[str]]:
    """What it sets, and every mistake in it. Raises :class:`ConfigError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        document = tomllib.loads(text.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    values: dict[str, object] = {}
    mistakes: list[str] = []
    for name, value in document.items():
        try:
            values[name] = configurable.named(name).read(value)
        except ConfigError as error:
            what = f"{name}: {error}" if name in configurable.settings else str(error)
            mistakes.append(f"{path}: {what}")
    return Layer(str(path), values), mistakes


def read_environment(environ: Mapping[str, str], configurable: Configurable) -> Layer:
    """What ``P2PD_…`` variables set; an empty one sets nothing. Raises :class:`ConfigError`."""
    values = {}
    for name, one in configurable.settings.items():
        text = environ.get(one.variable, "")
        if text:
            values[name] = _read_variable(one, text)
    return Layer("environment", values)


def _read_variable(one: Setting, text: str) -> object:
    try:
        return one.read_text(text)
    except ConfigError as error:
        raise ConfigError(f"{one.variable}: {error}") from error


def likely_typos(environ: Mapping[str, str], configurable: Configurable) -> list[str]:
    """A sentence for each ``P2PD_…`` variable that sets nothing and is close to one that does."""
    known = {
        one.variable.removeprefix(ENVIRONMENT_PREFIX) for one in configurable.settings.values()
    }
    found = []
    for variable in sorted(environ):
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if variable.startswith(ENVIRONMENT_PREFIX) and name not in known:
            near = nearest(name, known)
            if near is not None:
                found.append(f"{variable} sets nothing; did you mean {ENVIRONMENT_PREFIX}{near}?")
    return found


def as_file(values: Mapping[str, object]) -> str:
    """The lines of a file that sets them."""
    return "".join(f"{name} = {_toml(plain(value))}\n" for name, value in values.items())


def as_variables(values: Mapping[str, object]) -> str:
    """Lines that set them in the environment, for systemd's ``EnvironmentFile=``."""
    return "".join(
        f"{variable_of(name)}={json.dumps(str(value), ensure_ascii=False)}\n"
        for name, value in values.items()
    )


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # Of what JSON and TOML write differently, no setting's value has anything.
    return json.dumps(value, ensure_ascii=False)
