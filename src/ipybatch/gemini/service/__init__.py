"""The Gemini service: requests, replies and pacing.

request_config   settings common to all prompts, and the schema of answers
reply            answers, and the quota in a reply 429
api              requests, batch jobs and files, through Google's client
pacer            models, and when the next request to one may start
"""
