"""What MkDocs runs: pages may import `pages`, and no page fetches anything from a network."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent


def on_startup(command: str, dirty: bool) -> None:
    """Let blocks of code in the pages import the module beside this one."""
    sys.path.insert(0, str(HERE))


def on_page_markdown(markdown: str, **_: object) -> str:
    """Name the files of the repository that pages link to: the site does not have them."""
    return (
        re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"`\1`", markdown)
        if "](../examples" in markdown
        else markdown
    )


def on_post_page(output: str, page, config) -> str:
    """Refuse a page whose code failed, or that would load something from elsewhere; links that a reader follows are fine."""
    if "Traceback (most recent call last)" in output:
        raise ValueError(
            f"{page.file.src_uri}: its code failed: {output.partition('Traceback (most')[2][:3000]}"
        )
    for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", output):
        if re.search(r'(?:src|href)="(?:https?:)?//', tag) and 'rel="canonical"' not in tag:
            raise ValueError(f"{page.file.src_uri}: {tag}: loads from a network")
    return output
