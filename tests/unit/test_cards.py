"""The named cards of chaos can be chosen, and what a client may forget when the database did."""

import time
from pathlib import Path

import aiohttp
import pytest

from tests.chaos.cards import NAMES, names_in
from tests.chaos.clients import Client, Frame, Rewound, Visitor, Wish
from tests.chaos.receivers import told


def test_cards_are_chosen_by_name() -> None:
    assert names_in("") == set()
    assert names_in("storm,clock") == {"storm", "clock"}
    with pytest.raises(ValueError, match=f"no such card: strom; there are {', '.join(NAMES)}"):
        names_in("strom")


def frame(job_id: str, version: int) -> Frame:
    return {
        "job": job_id,
        "version": version,
        "request": "",
        "cancelling": False,
        "complete": False,
    }


@pytest.mark.parametrize("rewound", [True, False])
async def test_a_screen_goes_back_only_with_the_database(rewound: bool) -> None:
    now = time.time()
    visitor = Visitor(aiohttp.DummyCookieJar())
    wish = Wish(
        request="r", backend="quick", seconds=1, outcome="succeed", cancel_after=None, job_id="gone"
    )
    visitor.wishes["r"] = wish
    client = Client(1, visitor, [], [Rewound(now - 5, now - 1)] if rewound else [])
    client.view = {"back": frame("back", 5), "gone": frame("gone", 2)}
    await client.take({"type": "snapshot", "jobs": [frame("back", 3)]})
    assert client.went_back == ([] if rewound else ["back", "gone"])
    assert wish.job_id == (None if rewound else "gone")
    assert client.view == {"back": frame("back", 3)}


def test_an_end_that_was_told_is_read_with_its_state(tmp_path: Path) -> None:
    path = tmp_path / "signals"
    assert list(told(path)) == []
    path.write_text('{"job":"a","state":"failed"}\n{"job":"a","state":"succeeded"}\n')
    assert list(told(path)) == [("a", "failed"), ("a", "succeeded")]
