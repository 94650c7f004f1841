"""Rules: pure state machines: the time goes in, decisions come out; no clock, no I/O.

scheduler  which attempt starts next, and when
limiter    exact sliding windows of a resource, and its cool-down
limit_groups  limits of their own for some of the items
breaker    when a failing service is left alone
retry      what an error means, and how long to wait
estimate   the scheduler, run dry in virtual time
"""
