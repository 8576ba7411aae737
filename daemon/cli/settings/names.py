"""Which settings a command has: its long options, under the same names.

``--keep-checkpoints 5`` on the command line is ``keep-checkpoints = 5`` in a file and
``P2PD_KEEP_CHECKPOINTS=5`` in the environment. There is no second list, and no second check of a
value: each goes through its option's own type.

>>> parser = argparse.ArgumentParser()
>>> _ = parser.add_argument("--keep-checkpoints", type=int, default=3)
>>> make_configurable(parser, "join")
>>> settings = parser.get_default("configurable")
>>> settings.named("keep-checkpoints").variable
'P2PD_KEEP_CHECKPOINTS'
>>> settings.named("keep-checkpoint")
Traceback (most recent call last):
...
protocol.errors.ConfigError: there is no setting 'keep-checkpoint'; did you mean 'keep-checkpoints'?
"""

import argparse
import difflib
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.cli import arguments
from protocol.errors import ConfigError

ENVIRONMENT_PREFIX = "P2PD_"
LINK = "link"
"""The one argument that is a setting too."""
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_SIMILAR = 0.7


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a command."""

    name: str
    """As in a file."""
    action: argparse.Action
    written_default: object
    """As the option's own text has it."""
    can_be_off: bool
    """Whether there is a ``--no-NAME`` that takes back what was said before."""

    @property
    def default(self) -> object:
        """What counts where nobody sets it; None: what the option's help says."""
        parse, default = self.action.type, self.written_default
        # Not before it is asked for: types import much.
        return parse(default) if callable(parse) and isinstance(default, str) else default

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return variable_of(self.name)

    def read(self, value: object) -> object:
        """What the option would have made of ``value``, which stands in a file.

        Raises :class:`ConfigError`.
        """
        action = self.action
        if isinstance(action, argparse.BooleanOptionalAction | argparse._StoreTrueAction):
            if not isinstance(value, bool):
                raise ConfigError(f"{value!r} is neither true nor false")
            return value
        if isinstance(action, argparse._AppendAction):
            values = value if isinstance(value, list) else [value]
            return [self._word(one) for one in values]
        if value == "" and self.can_be_off:
            return ""
        return self._word(value)

    def read_text(self, text: str) -> object:
        """What the option would have made of ``text``, from the environment or ``p2pd set``.

        Several values stand apart by spaces. Raises :class:`ConfigError`.
        """
        action = self.action
        if isinstance(action, argparse.BooleanOptionalAction | argparse._StoreTrueAction):
            if text.lower() not in (*_TRUE, *_FALSE):
                raise ConfigError(f"{text!r} is neither true nor false")
            return text.lower() in _TRUE
        if isinstance(action, argparse._AppendAction):
            return self.read(shlex.split(text))
        return self.read(text)

    def _word(self, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ConfigError(f"{value!r} is neither a text nor a number")
        parse, word = self.action.type, str(value)
        try:
            parsed = parse(word) if callable(parse) else word
        except argparse.ArgumentTypeError as error:
            raise ConfigError(str(error)) from error
        if self.action.choices is not None and parsed not in self.action.choices:
            raise ConfigError(f"{word!r} is none of {', '.join(map(str, self.action.choices))}")
        return parsed


def variable_of(name: str) -> str:
    """What the setting is called in the environment."""
    return ENVIRONMENT_PREFIX + name.upper().replace("-", "_")


def is_secret(name: str, value: object) -> bool:
    """Whether only its owner may read ``value``."""
    return hidden(name, value) != plain(value)


def hidden(name: str, value: object) -> object:
    """``value`` without what only its owner may know."""
    text = plain(value)
    if not isinstance(text, str):
        return text
    if name == LINK and text.startswith("p2pd:"):
        return "p2pd:[redacted]"
    if name in ("turn", "store") and "@" in text:
        scheme, separator, rest = text.rpartition("://")
        return f"{scheme}{separator}[redacted]@{rest.rpartition('@')[2]}"
    return text


def plain(value: object) -> object:
    """``value`` as a file would have it: texts, numbers, true and false, lists of these."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


@dataclass(frozen=True, slots=True)
class Configurable:
    """A command whose options can be set elsewhere too."""

    command: str
    settings: Mapping[str, Setting]

    def named(self, name: str) -> Setting:
        """Raises :class:`ConfigError` with the nearest name there is."""
        if name in self.settings:
            return self.settings[name]
        raise ConfigError(f"there is no setting {name!r}{self.suggestion(name)}")

    def suggestion(self, name: str) -> str:
        """``; did you mean NAME?`` where one is near, else how to see all."""
        near = nearest(name.lower().replace("_", "-"), self.settings)
        if near is not None:
            return f"; did you mean {near!r}?"
        return f"; 'p2pd {self.command} --help' has all"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that ``name`` was most likely meant to be."""
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=_SIMILAR)), None)


def make_configurable(parser: argparse.ArgumentParser, command: str) -> None:
    """Let files and the environment set what ``parser`` takes. To be called when all is added.

    Parsed options are then None where nothing was said; :func:`daemon.cli.settings.layers.settle`
    puts the rest in.
    """
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--config",
        metavar="NAME",
        help="read ~/.config/p2pd/NAME.toml, or else /etc/p2pd/NAME.toml; or a file by its path"
        f" (default: $P2PD_CONFIG, or {command}, if there is such a file)",
    )
    source.add_argument(
        "--no-config",
        action="store_true",
        help="read no file, and no P2PD_… variable of the environment",
    )
    settings: dict[str, Setting] = {}
    offs = {one.dest for one in parser._actions if isinstance(one, argparse._StoreConstAction)}
    for action in parser._actions:
        name = _name_of(action)
        if name:
            can_be_off = action.dest in offs and not _is_switch(action)
            settings[name] = Setting(name, action, action.default, can_be_off)
            action.default = None
    parser.set_defaults(configurable=Configurable(command, settings))


def _name_of(action: argparse.Action) -> str:
    """Empty: it is no setting."""
    if action.dest in ("help", "config", "no_config") or action.help == argparse.SUPPRESS:
        return ""
    if not action.option_strings:
        return LINK if action.dest == LINK else ""
    name = action.option_strings[0].removeprefix("--")
    return "" if name.startswith("no-") else name


def _is_switch(action: argparse.Action) -> bool:
    return isinstance(action, argparse._StoreTrueAction)


def file_places(name: str, environ: Mapping[str, str]) -> list[Path]:
    """Where ``NAME.toml`` may lie, or the one place that ``name`` is the path of."""
    if os.sep in name or name.endswith(".toml"):
        return [arguments.absolute_path(name)]
    home = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return [Path(home) / "p2pd" / f"{name}.toml", Path("/etc/p2pd") / f"{name}.toml"]
