"""The Gemini service: requests, replies and pacing.

request_config   settings common to all prompts, and the schema of answers
reply            answers, and the quota in a reply 429
client           Google's client, made from a key; tls: the certificates of authorities, loaded once a process
api              requests, batch jobs and files, through Google's client
transport        how a request is sent from here; remote: from the workers of a cluster
pacer            models, and when the next request to one may start
"""
