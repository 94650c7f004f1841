"""The Jupyter server extension: every session of the user, and submissions, over REST and in the side bar.

Rule: state lives in journals only.  Handlers hold no SQL and no rules; what
blocks runs in the extension's two threads, never on the server's loop.

In reading order:

- `extension`: what Jupyter loads: configuration, routes, and what runs beside them.
- `wire`: everything that goes over the wire, as types; `openapi`: the same as OpenAPI 3.1; `cursor`: where a page goes
  on.
- `handler`: what all handlers share: authorization, bodies, ETags; `refusal`: errors; `services`: what they work with.
- `routes`: which handler answers which path; `root`: what the server is and allows.
- `catalogue`: the sessions of all journals, by opaque ids; `run_rows`: what the row of a run tells.
- `sessions`: routes of what is on record; `session_commands`: of what is asked of them; `results`: of what they hold.
- `panel`: what a session's tab draws; `recorded_view`: a session as its journal tells it.
- `body`: how bodies come, and are refused; `multipart`: forms with a file.
- `uploads`: tables that are kept until they are submitted; `upload_store`: where.
- `submission_store`: the life of a submission, and `submission_rows` its row; `templates`: what can be
  submitted; `submission_order`: what a request comes to; `options`: what the operator configured;
  `submissions`: routes.
- `schedule_timing`: when something is submitted again; `schedule_rows`, `schedule_store`: what is due becomes a
  submission, once; `schedule_view`, `schedules`: routes.
- `supervisor`: which submission runs next, and in which kernel; `session_kernels`: where those come from; `run`: what
  runs in that kernel.
- `watcher`: what changed, told through Jupyter's events and as server-sent events; `activity`: what keeps a live
  batch from being culled.
- `aliases`: the routes of two systems that users come from.
"""

from __future__ import annotations

__all__ = ["_jupyter_server_extension_points"]


def _jupyter_server_extension_points() -> list[dict[str, object]]:
    """Return what Jupyter loads."""
    from ipybatch.server.extension import IpyBatch

    return [{"module": "ipybatch.server", "app": IpyBatch}]
