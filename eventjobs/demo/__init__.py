"""Jobs to try eventjobs with; `eventjobs serve --demo` runs them."""

from eventjobs.demo.cases import analyze_calls, analyze_documents, analyze_with_agent
from eventjobs.demo.handlers import analyze_csv, analyze_text, countdown, flaky, link_story, noop
from eventjobs.demo.llm_summary import llm_summary
from eventjobs.demo.primes import primes
from eventjobs.handlers.registry import Part

HANDLERS: list[Part] = [
    analyze_calls,
    analyze_csv,
    analyze_documents,
    analyze_text,
    analyze_with_agent,
    countdown,
    flaky,
    link_story,
    llm_summary,
    noop,
    primes,
]
