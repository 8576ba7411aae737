"""The daemon's side of a script's channel: a real socket and real shared memory, and a test that
asks what it likes."""

import os
import socket
from pathlib import Path
from typing import Any

import torch
from torch import nn

from p2pd.channel import GREETING, HEAD, Channel, to_frame
from p2pd.messages import (
    FromTrainer,
    Open,
    Opened,
    Progress,
    Request,
    Standing,
    Train,
    decode_from_trainer,
    encode,
)
from p2pd.model_tensors import ModelTensors
from p2pd.script.daemon import Daemon
from p2pd.script.desk import Desk
from p2pd.shared_tensors import NO_ROOT, SharedTensors
from protocol.statements.swarm import RoundSettings

TIMEOUT_S = 200.0
SETTINGS: dict[str, Any] = {
    name: getattr(RoundSettings(), name) for name in RoundSettings.__struct_fields__
}


def root_of(round_number: int) -> bytes:
    """Any root will do here, if it is another one for each round."""
    return bytes([round_number]) * 32


class DaemonSide(Daemon):
    """What a test asks, a script answers. Numbers its requests as the daemon does."""

    def __init__(self, state_dir: Path, ours: socket.socket | None = None) -> None:
        """``ours``: connected to a script in another process; else it is one in this process."""
        self._theirs: socket.socket | None = None
        if ours is None:
            ours, self._theirs = socket.socketpair()
        self._ours = ours
        self._ours.settimeout(TIMEOUT_S)
        self._descriptors = [os.memfd_create(name) for name in ("base", "local", "origin")]
        socket.send_fds(self._ours, [GREETING], self._descriptors)
        self.base, self.local, self.origin = map(SharedTensors, self._descriptors)
        self._number = 0
        self._state_dir = state_dir
        self.settings: dict[str, Any] = {**SETTINGS, "local_unit": "steps", "local_amount": 3.0}
        self.desks: list[Desk] = []
        """Of the scripts that joined."""
        self.stopped = False

    # For the script

    def connect(self) -> Channel:
        assert self._theirs is not None
        return Channel(self._theirs.detach())

    def last_words(self) -> str:
        return ""

    def stop(self) -> None:
        self.stopped = True

    # For the test

    def ask(self, request: Request) -> int:
        """Send a request; its number."""
        self._number += 1
        self._ours.sendall(to_frame(self._number, encode(request)))
        return self._number

    def open(self) -> None:
        self.ask(Open({}, self.settings, seed=0, own_directory=str(self._state_dir / "trainer")))

    def train(self, number: int, model: nn.Module) -> int:
        """Have a round trained from the parameters that ``model`` has; the request's number."""
        self.lay(number - 1, model)
        return self.ask_training(number)

    def ask_training(self, number: int) -> int:
        """The same from what the base memory has."""
        return self.ask(Train(number, root_of(number - 1).hex()))

    def lay(self, number: int, model: nn.Module) -> None:
        """Have the base memory hold ``model`` as the state of that round."""
        ModelTensors(model).write(self.base, number, root_of(number))

    def lay_origin(self, number: int, model: nn.Module) -> None:
        """Have the origin memory hold ``model`` as where training from that state begins."""
        ModelTensors(model).write(self.origin, number, root_of(number))

    def stand(
        self, number: int, *, complete: bool = False, waits_for: str = "", samples: int = 100
    ) -> None:
        """Tell how the swarm stands: three peers at that round, so many samples in each; 0: this
        peer has seen none end."""
        root = root_of(number).hex()
        self.ask(Standing(number, root, 3, samples * number, "waiting", waits_for, complete))

    def answer(self, number: int) -> FromTrainer:
        """The answer to that request; what else comes is passed over."""
        while True:
            got, message = self.receive()
            if got == number:
                return message

    def said(self, kind: type[FromTrainer]) -> FromTrainer:
        """The next unasked message of that kind."""
        while True:
            got, message = self.receive()
            if not got and isinstance(message, kind):
                return message

    def receive(self) -> tuple[int, FromTrainer]:
        length, number = HEAD.unpack(self._read(HEAD.size))
        return number, decode_from_trainer(self._read(length))

    def close(self) -> None:
        self._ours.close()
        if self._theirs is not None and self._theirs.fileno() >= 0:  # nobody has connected
            self._theirs.close()
        while self._descriptors:
            os.close(self._descriptors.pop())

    def result(self, model: nn.Module, number: int) -> nn.Module:
        """``model`` with the parameters that the script left for a round."""
        root = root_of(number - 1) if number else NO_ROOT
        ModelTensors(model).read(self.local, number, root)
        return model

    def origin_of(self, model: nn.Module, number: int) -> nn.Module:
        """``model`` with those that the script began a round at."""
        ModelTensors(model).read(self.origin, number, root_of(number - 1))
        return model

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._ours.recv(count - len(data))
            assert more, "the script has closed its channel"
            data += more
        return data


def filled(value: float) -> nn.Module:
    """The model of these tests, all of whose parameters are ``value``."""
    model = nn.Linear(2, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def value_of(model: nn.Module) -> float:
    """The one value that all parameters have."""
    values = {float(value) for one in model.parameters() for value in one.detach().reshape(-1)}
    assert len(values) == 1, values
    return values.pop()


__all__ = ["DaemonSide", "Opened", "Progress", "filled", "root_of", "value_of"]
