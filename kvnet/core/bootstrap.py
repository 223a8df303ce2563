"""Bootstrap: a replica made of pages, for a node that nobody can serve frames from where it stands.

    begin     refused for the horizon by two peers, by the coordinator, or by all that there are for a second
    pages     in key order from one donor after another, a few at a time; each replaces the range that it covers
    tail      the first page's position is where the successor's journal begins; from there on we subscribe as
              ever, and what comes is kept while the pages do
    finish    with the last page, and the tail up to the highest position of any: replayed, proven, put in place

A page is as of its donor's position at that moment. Donors move on, so pages differ in that; none may be older
than the first, or the frames between would be missing. Applied in order, the frames after the first page's
position make of every page what it is at the highest one: the last entry of each key wins, and who has none is
right already. What readers see is the old replica until then. A restart goes on where the disk is.
"""

from __future__ import annotations

from math import inf
from typing import Any, Final

from kvnet.core.events import AbandonBootstrap, BeginBootstrap, BulkSend, FinishBootstrap, StorePage
from kvnet.core.messages import Page, PagesCredit, PagesRefused, PagesWanted
from kvnet.core.state import NEVER, Neighbour, NodeState
from kvnet.core.stream import Stream
from kvnet.core.tree import Tree
from kvnet.core.versions import GENESIS, Position

REFUSALS: Final = 2
"""So many peers whose journals begin after our end, and we take their word for all."""
ALONE_MS: Final = 1000.0
"""One peer's word is enough if no other has been found for this long."""
CREDIT: Final = 192
"""Pages under way and not yet stored, 6 MiB: what fills a way of 300 ms at 20 MB a second."""
CREDIT_STEP: Final = 8
SILENCE_MS: Final = 2000.0
"""A donor that sends no page for this long, while we have stored all it sent, is left."""
STORING_MS: Final = 60_000.0
"""The same while our own disk is what we wait for."""
UNPROVEN_MAX: Final = 256
"""Positions of pages that our tail hasn't reached yet; those beyond are left to the proof."""
AGAIN_MS: Final = 1000.0
"""How long it takes to ask a donor once more that could not give."""


class Bootstrap:
    """The receiving side."""

    def __init__(self, state: NodeState, stream: Stream, tree: Tree) -> None:
        self.state = state
        self.stream = stream
        self.tree = tree
        self.pages_received = 0
        self.page_bytes_received = 0
        self.finished = 0
        """Bootstraps that ended well since this start."""
        self._refusers: dict[str, None] = {}
        """Whose journals begin after our end."""
        self._frames_at = NEVER
        """When frames came last."""
        self._refused_at = NEVER
        """When the first of them said so."""
        self._active = False
        self._begun = False
        """There is a successor."""
        self._finishing = False
        self._takes_no_tail = False
        """Frames are taken up to the highest position of a page."""
        self._passes_by = False
        """Frames come, and help nothing."""
        self._donor = ""
        self._left: dict[str, float] = {}
        """Donors that gave nothing (any more), and since when."""
        self._givers: dict[str, None] = {}
        """Whose pages the successor has, as far as this process knows."""
        self._unproven: dict[Position, str] = {}
        """Positions of pages that aren't known to be on our history yet, and whose they are."""
        self._heard_at = NEVER
        self._start = GENESIS
        self._taken = b""
        """The last place of any page that was handed to the disk."""
        self._stored = b""
        """The last place that the disk has."""
        self._storing = 0
        self._owed = 0
        """Pages that were stored since the donor was last given credit."""
        self._whole_taken = False
        self._whole = False
        self._highest = GENESIS
        self._digest = b""

    # -- when it begins and ends -----------------------------------------------------------------------------

    @property
    def is_active(self) -> bool:
        return self._active

    @property
    def is_proving(self) -> bool:
        """Whether all pages are there, and the tail behind them is being replayed."""
        return self._finishing

    @property
    def start_seq(self) -> int:
        """Where the successor's journal begins, or 0: what was applied before it was to the old replica."""
        return self._start.seq

    @property
    def lacks_frames(self) -> bool:
        """Whether some page is as of a frame that isn't here yet."""
        return self._begun and self.state.applied.seq < self._highest.seq

    @property
    def left_count(self) -> int:
        return len(self._left)

    @property
    def unproven_count(self) -> int:
        return len(self._unproven)

    def resume(self) -> None:
        """Go on with what a process before this one has begun."""
        progress = self.state.journal.bootstrap
        if progress is None:
            return
        self._active = self._begun = True
        self._start = progress.start
        self._taken = self._stored = progress.until
        self._whole_taken = self._whole = progress.whole
        self._highest, self._digest = progress.highest, progress.digest
        self.state.report("bootstrap", f"going on behind {progress.until.hex() or 'the beginning'}")
        self._set_timer(0)

    def on_horizon(self, peer: str) -> None:
        """A peer's journal begins after our end: it can't serve us."""
        state = self.state
        if peer not in state.neighbours or self._is_served() or self._finishing:
            return  # a replica that is being proven is worth having, even if the next one must follow
        if not self._refusers:
            self._refused_at = state.now
        self._refusers[peer] = None
        if self._active and not self._begun:
            return
        if peer == state.config.root or len(self._refusers) >= REFUSALS:
            self.begin()
        else:
            self._set_timer(ALONE_MS)

    def _is_served(self) -> bool:
        """Whether a parent gives us frames; one that is as far as we are gives none, and may be all there is."""
        state = self.state
        is_silent = state.late_since is not None and state.now - self._frames_at >= SILENCE_MS
        return bool(state.parents) and not is_silent

    def on_progress(self) -> None:
        """Frames came: whoever serves us has what we lack."""
        self._refusers.clear()
        self._frames_at = self.state.now
        if not self._passes_by:
            self._stay_as_it_is("frames came after all")

    def _stay_as_it_is(self, why: str) -> None:
        if self._active and not self._begun:
            self.state.report("bootstrap", f"{why}: no pages are needed")
            self._let_go()
            self._reset()
        if not self._active:
            self.state.cancel_timer("bootstrap")

    def pass_by(self) -> None:
        """Begin because of a frame that is here and can't be applied, as nobody has its chunks any more."""
        self._passes_by = True
        self.begin()

    def begin(self) -> None:
        """Begin, or begin again where the journal of what was begun can't be continued any more."""
        state = self.state
        self._refusers.clear()
        if self._begun:
            self._abandon("nobody has the frames that it needs any more")
        self._active = state.awaits_page = True
        state.report("bootstrap", f"nobody serves what follows {state.applied}: taking pages")
        self._ask_next()

    def begin_without_tail(self, why: str) -> None:
        """Begin again, and take no frame beyond what the pages need: the donors have applied those."""
        self._abandon(why)
        self._active = self.state.awaits_page = True
        self._takes_no_tail = True
        self._set_timer(AGAIN_MS)

    def forget(self) -> None:
        """What was begun is gone, and so is the replica: nobody knows yet whether pages are needed."""
        self._refusers.clear()
        self._left.clear()
        self._let_go()
        self._reset()
        self.state.cancel_timer("bootstrap")

    def fail(self, why: str, culprit: str = "") -> None:
        """What the pages brought isn't the network's: begin again, with others before any that gave some."""
        for name in [culprit] if culprit else [*self._givers]:
            self._leave(name)
        self._abandon(why)
        self._active = self.state.awaits_page = True
        self._set_timer(AGAIN_MS)

    def on_bootstrapped(self, position: Position) -> None:
        """The successor is our replica."""
        state = self.state
        state.applied = position
        self.finished += 1
        state.report("bootstrap", f"done at {position}, with {self.pages_received} pages since this start")
        self._left.clear()
        self._reset()
        state.cancel_timer("bootstrap")

    def _abandon(self, why: str) -> None:
        state = self.state
        state.report("bootstrap", f"beginning again: {why}")
        if self._begun:
            self._let_go()
            state.out.append(AbandonBootstrap())
            self.stream.jump_to(state.journal.served)
        self._reset()

    def _reset(self) -> None:
        self._active = self._begun = self._finishing = self.state.awaits_page = False
        self._takes_no_tail = self._passes_by = False
        self.state.frames_wanted_to = inf
        self._donor = ""
        self._start = self._highest = GENESIS
        self._taken = self._stored = self._digest = b""
        self._storing = self._owed = 0
        self._whole_taken = self._whole = False
        self._givers.clear()
        self._unproven.clear()

    # -- donors ----------------------------------------------------------------------------------------------

    def _ask_next(self) -> None:
        """Want the next pages of the nearest donor that hasn't failed, or of the one whose failure is oldest.

        Look again in a while when there is none.
        """
        state = self.state
        self._donor = ""
        if self._storing or self._whole_taken:
            self._set_timer(SILENCE_MS)
            return
        able = sorted(
            (n for n in state.neighbours.values() if self._may_give(n)),
            key=lambda n: (n.name == state.config.root, self._left.get(n.name, NEVER), n.cost_ms(), n.name),
        )
        # Where each donor has failed once, somebody may still have all frames: then we look for both.
        state.awaits_page = not self._begun and bool(able) and able[0].name not in self._left
        if not able:
            self._set_timer(AGAIN_MS)
            return
        self._donor = able[0].name
        self._heard_at = state.now
        self._owed = 0
        state.out.append(BulkSend(self._donor, PagesWanted(self._taken, CREDIT)))
        self._set_timer(SILENCE_MS)

    def _may_give(self, neighbour: Neighbour) -> bool:
        """Whether it has said where it stands, which isn't behind us, and hasn't refused just now."""
        state = self.state
        advert = neighbour.advert
        if advert is None or not advert.position.seq or state.is_barred(neighbour.name):
            return False
        if state.now - self._left.get(neighbour.name, NEVER) < self._rest_ms():
            return False
        if state.is_left_behind(advert.position.epoch):
            return False
        return self._is_of_use(advert.position)

    def _is_of_use(self, position: Position) -> bool:
        """Whether pages as of this position bring us further, or continue those we have."""
        if self._begun:
            return position[:2] >= self._start[:2]
        return position[:2] > self.state.journal.served[:2]

    def _rest_ms(self) -> float:
        """How long a donor that gave nothing is left alone: others come first, but there may be none."""
        return AGAIN_MS * min(8, max(1, len(self._left)))

    def _leave_donor(self) -> None:
        """Ask another one; this one may give to somebody else."""
        self._leave(self._donor)
        self._let_go()

    def _let_go(self) -> None:
        """Tell a donor that we take no more pages, as it would keep our place for half a minute."""
        if self._donor:
            self.state.out.append(BulkSend(self._donor, PagesRefused(self.state.applied)))
            self._donor = ""

    def _leave(self, name: str) -> None:
        self._left[name] = self.state.now
        if len(self._left) > len(self.state.neighbours) + CREDIT:
            del self._left[next(iter(self._left))]

    def on_refused(self, peer: str) -> None:
        """A donor gives nothing, or no more; or its bulk link is gone."""
        if peer == self._donor:
            self._leave(self._donor)
            self._donor = ""
            self._ask_next()

    def on_bulk_lost(self, peer: str) -> None:
        self.on_refused(peer)

    # -- pages -----------------------------------------------------------------------------------------------

    def on_page(self, peer: str, page: Page) -> None:
        """Take the page that comes next."""
        state = self.state
        if not self._active or peer != self._donor or page.after != self._taken or self._whole_taken:
            return
        too_many = self._storing >= CREDIT + CREDIT_STEP
        if not self._is_of_use(page.position) or too_many or self._is_elsewhere(page.position):
            state.report("bootstrap", f"{peer} gives a page as of {page.position}, which can't be used")
            self._leave_donor()
            self._ask_next()
            return
        self.pages_received += 1
        self.page_bytes_received += len(page.body)
        self._heard_at = state.now
        if page.position.seq > self._highest.seq or not self._digest:
            self._highest, self._digest = page.position, page.digest
            if self._takes_no_tail:
                state.frames_wanted_to = self._highest.seq
        if not self._begun:
            self._begin_at(page.position)
        self._note_giver(peer, page)
        self._taken = page.until or self._taken
        self._whole_taken = not page.until
        self._storing += 1
        state.out.append(StorePage(page))

    def _is_elsewhere(self, position: Position) -> bool:
        """Whether a page's position is known not to be on the history that we follow."""
        if not self._begun or position == self._start:
            return False
        is_past = position.seq <= self.state.applied.seq
        return position.seq <= self._start.seq or (is_past and not self.state.journal.holds(position))

    def _note_giver(self, peer: str, page: Page) -> None:
        """Remember whose page it is, and its position until our tail has reached it."""
        state = self.state
        if peer not in self._givers:
            self._givers[peer] = None
            state.report("bootstrap", f"{peer} gives pages behind {page.after.hex() or 'the beginning'}")
        neighbour = state.neighbours.get(peer)
        if neighbour is not None and neighbour.ladder_used_at is not None:
            neighbour.ladder_used_at = state.now
        if page.position.seq > state.applied.seq and len(self._unproven) < UNPROVEN_MAX:
            self._unproven.setdefault(page.position, peer)

    def _begin_at(self, position: Position) -> None:
        """The successor begins: its journal, and so what we follow, is at the first page's position."""
        state = self.state
        self._begun = True
        self._start = position
        state.awaits_page = False
        self._refusers.clear()
        state.out.append(BeginBootstrap(position))
        self.stream.jump_to(position)
        for neighbour in state.neighbours.values():
            neighbour.useless_until = NEVER  # they refused who we were
        self._follow_donor()

    def _follow_donor(self) -> None:
        """Subscribe at the donor, which stands just where we begin; whoever is nearer takes its place later."""
        state = self.state
        donor = state.neighbours.get(self._donor)
        if state.is_root and (donor is None or self.lacks_frames):  # nobody else looks for a parent there
            able = [(n.advert.position[:2], n.name) for n in state.neighbours.values() if n.advert is not None]
            donor = state.neighbours[max(able)[1]] if able else donor
        if donor is not None and not state.parents and self.tree.may_serve(donor):
            self.tree.add_parent(donor.name, late=True)

    def on_stored(self, until: bytes) -> None:
        """A page is on the disk: the donor may send another one."""
        state = self.state
        if not self._begun:
            return
        self._storing = max(0, self._storing - 1)
        self._stored = until or self._stored
        self._whole = self._whole or not until
        self._owed += 1
        if self._donor and not self._whole_taken and self._owed >= CREDIT_STEP:
            state.out.append(BulkSend(self._donor, PagesCredit(self._owed)))
            self._owed = 0
        if not self._donor and not self._storing:
            self._ask_next()
        self._finish_if_whole()

    def on_unusable(self, why: str) -> None:
        """A page was altered or doesn't come next, and so don't those that were handed over behind it."""
        if not self._begun:
            return
        self._storing = max(0, self._storing - 1)
        if self._taken != self._stored or self._whole_taken != self._whole:
            self.state.report("bootstrap", f"a page of {self._donor or 'a donor'} can't be used: {why}")
            self._taken, self._whole_taken = self._stored, self._whole
            if self._donor:
                self._leave_donor()
        if not self._storing:
            self._ask_next()

    # -- the end ---------------------------------------------------------------------------------------------

    def on_applied(self) -> None:
        """The tail has grown: what pages are as of must be on it."""
        state = self.state
        if self._passes_by:
            self._stay_as_it_is("what couldn't be applied was")
        for position, giver in list(self._unproven.items()):
            if position.seq <= state.applied.seq:
                del self._unproven[position]
                if not state.journal.holds(position):
                    self.fail(f"a page of {giver} is as of {position}, which isn't on our history", giver)
                    return
        self._finish_if_whole()

    def _finish_if_whole(self) -> None:
        """Order the proof when all pages are there, and the tail up to the highest position of any."""
        state = self.state
        if not self._whole or self._finishing or self.lacks_frames:
            return
        if not state.journal.holds(self._highest):
            self.fail(f"a page was as of {self._highest}, which isn't on our history")
            return
        self._finishing = True
        self._donor = ""
        state.cancel_timer("bootstrap")
        state.out.append(FinishBootstrap(self._highest, self._digest))

    # -- time ------------------------------------------------------------------------------------------------

    def on_timer(self) -> None:
        """Begin when one peer's word must do; leave a donor that is silent; look for one."""
        state = self.state
        if self._refusers and not self._is_served() and (not self._active or self._is_refused_for_long()):
            self.begin()
            return
        self._finish_if_whole()  # after a restart all may be there, and nothing else to come
        if self._finishing or not self._active:
            return
        if self._begun and not state.parents:
            self._follow_donor()
        patience = STORING_MS if self._storing else SILENCE_MS
        if self._donor and state.now - self._heard_at >= patience and not self._whole_taken:
            state.report("bootstrap", f"{self._donor} is silent: another donor")
            self._leave_donor()
        if self._donor or self._whole_taken:
            self._set_timer(SILENCE_MS)
        else:
            self._ask_next()

    def _is_refused_for_long(self) -> bool:
        return self._begun and not self._finishing and self.state.now - self._refused_at >= ALONE_MS

    def _set_timer(self, ms: float) -> None:
        self.state.set_timer("bootstrap", self.state.now + self.state.jittered(ms))

    # -- for people ------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any] | None:
        """Return what `kvnet status` shows of it; None when there is none under way."""
        if not self._active:
            return None
        return {
            "donor": self._donor or None,
            "pages": self.pages_received,
            "page_bytes": self.page_bytes_received,
            "until": self._stored.hex(),
            "all_pages": self._whole,
            "start": str(self._start.version),
            "highest": str(self._highest.version),
            "proving": self._finishing,
        }

    def check_invariants(self) -> None:
        assert self._active or not self._begun, "a successor that nobody makes"
        assert not self._finishing or self._whole, "a proof before the last page"
        assert 0 <= self._storing <= CREDIT + CREDIT_STEP, "more pages than credit"
        assert self._highest.seq >= self._start.seq, "a page older than the first"
        assert self.state.applied.seq >= self._start.seq, "the tail ends before the successor begins"
        assert len(self._unproven) <= UNPROVEN_MAX, "positions without bound"
