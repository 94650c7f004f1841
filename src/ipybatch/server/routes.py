"""Routes: which handler answers which path; the OpenAPI file is made from the same table.

ROUTES   below /ipybatch/api/v1
ALIASES  below /ipybatch
"""

from __future__ import annotations

from ipybatch.server.aliases import (
    ForecastCancelHandler,
    ForecastDownloadHandler,
    ForecastHistoryHandler,
    ForecastStatusHandler,
    ForecastSubmitHandler,
    JobCreateHandler,
    JobHistoryHandler,
    JobStatusHandler,
)
from ipybatch.server.channels import ChannelsHandler
from ipybatch.server.event_stream import EventsHandler
from ipybatch.server.failures import FailuresHandler
from ipybatch.server.handler import Handler
from ipybatch.server.openapi import OpenApiHandler
from ipybatch.server.panel import PanelHandler
from ipybatch.server.results import FileHandler, ResultsHandler
from ipybatch.server.root import RootHandler
from ipybatch.server.schedules import ScheduleCommandsHandler, ScheduleHandler, SchedulesHandler
from ipybatch.server.session_commands import CommandHandler, CommandsHandler
from ipybatch.server.sessions import (
    ErrorsHandler,
    GroupsHandler,
    ItemsHandler,
    LogHandler,
    SessionHandler,
    SessionsHandler,
)
from ipybatch.server.submissions import SubmissionCommandsHandler, SubmissionHandler, SubmissionsHandler
from ipybatch.server.uploads import UploadHandler, UploadsHandler
from ipybatch.server.user_templates import TemplateHandler, TemplatesHandler

ID = r"([^/]+)"

ROUTES: list[tuple[str, type[Handler]]] = [
    (r"/?", RootHandler),
    (r"/submissions", SubmissionsHandler),
    (rf"/submissions/{ID}", SubmissionHandler),
    (rf"/submissions/{ID}/commands", SubmissionCommandsHandler),
    (r"/openapi\.json", OpenApiHandler),
    (r"/events", EventsHandler),
    (r"/uploads", UploadsHandler),
    (rf"/uploads/{ID}", UploadHandler),
    (rf"/sessions/{ID}/panel", PanelHandler),
    (r"/sessions", SessionsHandler),
    (rf"/sessions/{ID}", SessionHandler),
    (rf"/sessions/{ID}/items", ItemsHandler),
    (rf"/sessions/{ID}/groups", GroupsHandler),
    (rf"/sessions/{ID}/errors", ErrorsHandler),
    (rf"/sessions/{ID}/failures", FailuresHandler),
    (rf"/sessions/{ID}/log", LogHandler),
    (r"/templates", TemplatesHandler),
    (rf"/templates/{ID}", TemplateHandler),
    (r"/channels", ChannelsHandler),
    (r"/schedules", SchedulesHandler),
    (rf"/schedules/{ID}", ScheduleHandler),
    (rf"/schedules/{ID}/commands", ScheduleCommandsHandler),
    (rf"/sessions/{ID}/results\.(csv|jsonl|parquet)", ResultsHandler),
    (rf"/sessions/{ID}/files/{ID}", FileHandler),
    (rf"/sessions/{ID}/commands", CommandsHandler),
    (rf"/sessions/{ID}/commands/{ID}", CommandHandler),
]

ALIASES: list[tuple[str, type[Handler]]] = [
    (r"/batch/create", JobCreateHandler),
    (rf"/batch/status/{ID}", JobStatusHandler),
    (r"/batch/history", JobHistoryHandler),
    (r"/api/batch/submit", ForecastSubmitHandler),
    (rf"/api/batch/status/{ID}", ForecastStatusHandler),
    (rf"/api/batch/download/{ID}", ForecastDownloadHandler),
    (rf"/api/batch/cancel/{ID}", ForecastCancelHandler),
    (r"/api/batch/history", ForecastHistoryHandler),
]
