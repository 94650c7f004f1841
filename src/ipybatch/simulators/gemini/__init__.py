"""The Gemini Developer API, simulated: online, flex and batch.

In reading order:

- `server`: `GeminiSimulator`, the routes, and the order in which a request is decided.
- `generation`: a request for content, and its made-up answer.
- `ledger`: what was accepted, billed and delivered, row by row and in sums.
- `quotas`: limits per model, refusals of whole accounts, and the error replies.
- `jobs`: batch jobs over time, and their faults.
- `batches`: the endpoints for batch jobs.
- `files`: uploads, generated files and their endpoints.
"""
