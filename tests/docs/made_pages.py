"""Pages of the manual that are made from the code when mkdocs builds it (mkdocs.yml names this)."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.docs.commands_page import commands_page, configuration_page
from tests.docs.messages_page import messages_page

MADE = {
    "commands.md": commands_page,
    "configuration.md": configuration_page,
    "wire-messages.md": messages_page,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them to what is in docs/."""
    for name, page in MADE.items():
        files.append(File.generated(config, name, content=page()))
    return files
