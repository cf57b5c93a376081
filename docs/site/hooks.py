"""What MkDocs runs: pages may import `pages`, and no page fetches anything from a network."""

import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

HERE = Path(__file__).parent


def on_startup(command: str, dirty: bool) -> None:
    """Let blocks of code in the pages import the module beside this one."""
    sys.path.insert(0, str(HERE))


def on_config(config):
    """List a page for each kernel beside the job file's, under Reference."""
    from ctd.catalogue import kernel_names

    (reference,) = [part["Reference"] for part in config.nav if "Reference" in part]
    after = 1 + next(k for k, part in enumerate(reference) if "Job files" in part)
    pages = [{name: f"reference/kernels/{name}.md"} for name in kernel_names()]
    reference.insert(after, {"Kernels": pages})
    return config


def on_files(files, config):
    """Make those pages."""
    from pages import kernel_page

    from ctd.catalogue import kernel_names

    for name in kernel_names():
        path = f"reference/kernels/{name}.md"
        files.append(File.generated(config, path, content=kernel_page(name)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Run what is hidden, and name the files of the repository that pages link to: the site does not have them."""
    from pages import uncovered

    markdown = uncovered(markdown)
    return (
        re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"`\1`", markdown)
        if "](../examples" in markdown
        else markdown
    )


def on_post_page(output: str, page, config) -> str:
    """Refuse a page whose code failed, or that would load something from elsewhere; links that a reader follows are fine."""
    # A page without code that is executed may show one in an example of a docstring.
    if "exec=" in page.markdown and "Traceback (most recent call last)" in output:
        raise ValueError(
            f"{page.file.src_uri}: its code failed: {output.partition('Traceback (most')[2][:3000]}"
        )
    for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", output):
        if re.search(r'(?:src|href)="(?:https?:)?//', tag) and 'rel="canonical"' not in tag:
            raise ValueError(f"{page.file.src_uri}: {tag}: loads from a network")
    return output
