"""Rules: pure state machines: the time goes in, decisions come out; no clock, no I/O.

scheduler      which attempt starts next, and when; line: those that are still to be drawn
limiter        exact sliding windows of a resource, and its cool-down
opening        when a session may start anything by the clock on the wall
limit_groups   limits of their own for some of the items
classify       whose fault an error is; client_errors: how each HTTP client tells; rate_headers: what an answer says
breaker        when a failing service is left alone
charges        which of an item's attempts count
doubt          whether one error that meets every item is theirs
retry          how long to wait, and when an item is given up
recurrence     when a schedule is due, by the clocks of a zone
estimate       the scheduler, run dry in virtual time
"""
