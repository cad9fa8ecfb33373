"""Drives JupyterLab in a headless Chromium: a page's address, a picture's path, then steps.

Run by the Python that has playwright; writes the text of the notebook at the end.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from playwright.sync_api import Page, sync_playwright  # type: ignore[import-not-found]

CELL = ".jp-Notebook .jp-Cell"


def main(address: str, picture: str, steps: list[list[Any]]) -> None:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1400})
        page.goto(address)
        page.wait_for_selector(CELL)
        page.wait_for_selector("#jp-main-statusbar :has-text('| Idle')")
        try:
            for step, *words in steps:
                STEPS[step](page, *words)
        finally:
            page.screenshot(path=picture)
        sys.stdout.write(page.inner_text(".jp-Notebook"))
        browser.close()


def run(page: Page, number: int, typed: str = "") -> None:
    page.click(f"{CELL} >> nth={number} >> .jp-InputArea-editor")
    page.keyboard.insert_text(typed)
    page.keyboard.press("Shift+Enter")


def see(page: Page, text: str) -> None:
    page.wait_for_selector(f".jp-Notebook .jp-OutputArea-output:has-text({json.dumps(text)})")


def wait(page: Page, selector: str) -> None:
    page.wait_for_selector(selector)


def fill(page: Page, selector: str, text: str) -> None:
    page.fill(selector, text)
    page.keyboard.press("Enter")


def type_in(page: Page, selector: str, text: str) -> None:
    """Before what is there."""
    page.click(selector)
    page.keyboard.press("Control+Home")
    page.keyboard.insert_text(text)


def open_file(page: Page, name: str) -> None:
    page.dblclick(f".jp-DirListing-item:has-text({json.dumps(name)})")


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def confirm(page: Page) -> None:
    page.wait_for_selector(".jp-Dialog")
    page.keyboard.press("Enter")
    page.wait_for_selector(".jp-Dialog", state="detached")


STEPS = {
    "run": run,
    "see": see,
    "wait": wait,
    "fill": fill,
    "open": open_file,
    "type": type_in,
    "press": press,
    "confirm": confirm,
}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
