"""``completion``: what the shell asks when somebody presses Tab.

The shell's part is a few lines that ask ``p2pd completion words``; what there is to complete is
read from the command line itself, so it is never out of date.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from daemon.cli import arguments

if TYPE_CHECKING:
    from daemon.cli.arguments import Commands

BASH = """\
_p2pd() {
  local IFS=$'\\n'
  COMPREPLY=($(p2pd completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _p2pd p2pd
"""

ZSH = """\
#compdef p2pd
_p2pd() {
  local -a found
  found=("${(@f)$(p2pd completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "$found" ]]; then compadd -- $found; else _files; fi
}
compdef _p2pd p2pd
"""

FISH = """\
function __p2pd_words
    set -l words (commandline -opc) (commandline -ct)
    p2pd completion words $words[2..-1] 2>/dev/null
end
complete -c p2pd -a '(__p2pd_words)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def add_commands(commands: "Commands") -> None:
    """The group's parser."""
    parser = arguments.add_command(
        commands,
        "completion",
        _completion,
        summary="let the shell complete p2pd's commands",
        description="Print a script that lets the shell complete commands and options.",
        examples="  p2pd completion bash > ~/.local/share/bash-completion/completions/p2pd\n"
        "  p2pd completion zsh > ~/.zfunc/_p2pd\n"
        "  p2pd completion fish > ~/.config/fish/completions/p2pd.fish",
    )
    parser.add_argument("shell", choices=(*SCRIPTS, "words"), help="bash, zsh or fish")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def _completion(options: argparse.Namespace) -> int:
    if options.shell != "words":
        sys.stdout.write(SCRIPTS[options.shell])
        return 0
    found = complete(options.whole_parser, options.words)
    sys.stdout.write("".join(f"{word}\n" for word in found))
    return 0


def complete(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """What the last of ``words``, which follow the program's name, can become; the rest files.

    >>> parser = argparse.ArgumentParser()
    >>> _ = parser.add_argument("--exchange", choices=("mesh", "gossip", "auto"))
    >>> complete(parser, ["--ex"]), complete(parser, ["--exchange", "m"])
    (['--exchange'], ['mesh'])
    """
    *before, last = words or [""]
    for word in before:
        subparser = subparsers(parser).get(word)
        if subparser is not None:
            parser = subparser
    option = next(
        (one for one in parser._actions if before and before[-1] in one.option_strings), None
    )
    if option is not None and option.nargs != 0:
        candidates = [str(choice) for choice in option.choices or ()]
    elif last.startswith("-"):
        candidates = [text for one in parser._actions for text in one.option_strings]
    else:
        candidates = list(subparsers(parser)) or [
            str(choice)
            for one in parser._actions
            if not one.option_strings
            for choice in one.choices or ()
        ]
    return sorted(word for word in candidates if word.startswith(last))


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The subcommands by name; argparse has no public way to ask for them."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(action.choices)
    return found
