"""How long the web page takes for each step with 10,000 results, in a real browser."""

from collections.abc import Iterator

from scripts.benchmarks.support.benchmark_run import BenchmarkRun
from scripts.benchmarks.support.connection import Connection
from scripts.benchmarks.support.figures import Figure
from scripts.benchmarks.support.synthetic_jobs import (
    claim_all,
    score_all,
    submit_table,
    write_table,
)
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.store import JobStore

RESULTS = 10_000
REPEATS = 10
BOUND_MS = 100
_DEADLINE_S = 60
# By what they do, the steps of each repetition, which is the variable `turn`.
_STEPS = {
    "scroll": "window.scrollTo(0, 20000 + 40000 * turn)",
    "gallery or list": "document.querySelectorAll('[name=layout]')[turn % 2].click()",
    "threshold": "set(document.querySelector('.histogram input'), 0.3 + turn / 50)",
    "filter by label": "document.querySelector('[data-side=above]').click()",
    "filter by name": "set(document.getElementById('by-name'), turn % 2 ? '' : 'SKU-00000')",
    "order": "set(document.getElementById('by-order'), turn % 2 ? 'uncertain' : 'name')",
}
# Milliseconds until each of the steps is done and drawn.
_MEASURE = """
const [script, repeats, done] = arguments;
const set = (element, value) => {
  element.value = value;
  for (const type of ["input", "change"]) element.dispatchEvent(new Event(type, {bubbles: true}));
};
const step = new Function("turn", "set", script), times = [];
const next = (turn) => {
  if (turn === repeats) return done(times);
  const start = performance.now();
  step(turn, set);
  requestAnimationFrame(() => setTimeout(() => {
    times.push(performance.now() - start);
    setTimeout(() => next(turn + 1), 50);
  }));
};
next(0);
"""


def page(run: BenchmarkRun) -> Iterator[Figure]:
    """Scroll, filter, order and re-threshold; the results are synthetic."""
    from selenium.webdriver.support.wait import WebDriverWait

    from scripts.benchmarks.support.browser import chromium

    table = run.new_folder("page") / "table.csv"
    write_table(table, RESULTS)
    with run.stack(workers=0) as stack, Connection(stack.url, timeout_s=600) as connection:
        store = JobStore(connect(stack.redis_url))
        job_id = submit_table(connection, table)["id"]
        score_all(store, claim_all(store))
        with chromium() as browser:
            browser.get(f"{stack.url}/#{job_id}")
            loaded = f"return document.getElementById('shown').textContent == '{RESULTS:,} results'"
            counted = "return document.querySelector('.sides')?.textContent.includes('above')"
            for script in (loaded, counted):
                WebDriverWait(browser, _DEADLINE_S).until(lambda tab: tab.execute_script(script))  # noqa: B023
            for name, script in _STEPS.items():
                times_ms = browser.execute_async_script(_MEASURE, script, REPEATS)
                on = f"{RESULTS} results, {REPEATS} times"
                yield Figure.of(f"page: {name}", "ms", times_ms, ("<=", BOUND_MS), on)
