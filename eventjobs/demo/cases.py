"""The jobs of dialect 003: a case's documents, its calls, and an agent, each looked at in turn."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from eventjobs.demo.settings import DemoSettings
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext

DOCUMENTS = ("application", "statement", "form 7801")
CALLS = ("first call", "follow-up")
QUESTIONS = ("facts", "risks", "next steps")


class CaseRequest(BaseModel, extra="forbid"):
    case_id: str = Field(min_length=1, max_length=200)


def _examine(ctx: ThreadContext, case_id: str, verb: str, items: Sequence[str]) -> dict[str, Any]:
    """Look at each of *items* for its share of the simulated time."""
    pause_s = DemoSettings().simulated_slow_processing_s / len(items)
    findings = {}
    for number, item in enumerate(items):
        ctx.progress(number, len(items), stage="analyzing", message=f"{verb} {item}...")
        ctx.sleep(pause_s)
        ctx.check_cancelled()
        findings[item] = f"{item} of case {case_id}: complete"
    ctx.progress(len(items), len(items), stage="analyzing", message="Done")
    return findings


@handler("document_analysis_form7801")
def analyze_documents(ctx: ThreadContext, payload: CaseRequest) -> dict[str, Any]:
    """Look at each document of a case."""
    analysis = _examine(ctx, payload.case_id, "Analyzing", DOCUMENTS)
    result = {"case_id": payload.case_id, "analysis": analysis}
    return result | {"documents_analyzed": len(analysis)}


@handler("call_reanalysis")
def analyze_calls(ctx: ThreadContext, payload: CaseRequest) -> dict[str, Any]:
    """Look at each call of a case again."""
    analysis = _examine(ctx, payload.case_id, "Listening to the", CALLS)
    return {"case_id": payload.case_id, "analysis": analysis, "calls_analyzed": len(analysis)}


@handler("agent_analysis")
def analyze_with_agent(ctx: ThreadContext, payload: CaseRequest) -> dict[str, Any]:
    """Answer the questions about a case, one after the other."""
    analysis = _examine(ctx, payload.case_id, "Answering", QUESTIONS)
    return {"case_id": payload.case_id, "analysis": analysis, "questions": len(analysis)}
