"""Feed: events to those who listen, and the state that they add up to.

feed          events in order: snapshot, log, listeners
snapshot      the fold of all events
event_text    what events are called and how they read
session_view  what a view may ask of a session
live_record   what the journal keeps of the moment for other processes
"""
