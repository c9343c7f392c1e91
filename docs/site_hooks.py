"""Hooks of the site: the README is its first page, and links that leave the documents are only named."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.structure.files import File, Files

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://|#)([^)]+)\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the README as `index.md`."""
    readme = File.generated(config, "index.md", abs_src_path=f"{config.docs_dir}/../README.md")
    files.append(readme)
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Bring links to where pages are; of a file that is not on the site, leave the words."""
    if page.file.src_uri == "index.md":
        markdown = markdown.replace("](docs/", "](").replace('src="docs/', 'src="')
    known = {file.src_uri for file in files}

    def kept(match: re.Match[str]) -> str:
        return match[0] if match[2].partition("#")[0] in known | {""} else match[1]

    return LINK.sub(kept, markdown)
