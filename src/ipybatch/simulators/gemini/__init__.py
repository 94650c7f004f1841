"""The Gemini Developer API, simulated: online, flex and batch.

In reading order:

- `server`: `GeminiSimulator`, the routes, and the order in which a request is decided.
- `generation`: a request for content, its made-up answer, and the ledger of what is billed.
- `quotas`: limits per model, and the error replies.
- `batches`: batch jobs and their endpoints.
- `files`: uploads, generated files and their endpoints.
"""
