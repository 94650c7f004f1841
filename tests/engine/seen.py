"""What a server counts."""


def busiest(arrivals, per_s):
    """Return the most that any window of ``per_s``, both ends included, held of (arrival, cost)."""
    arrivals = sorted(arrivals)
    most = held = first = 0
    for at_s, cost in arrivals:
        held += cost
        while arrivals[first][0] < at_s - per_s:
            held -= arrivals[first][1]
            first += 1
        most = max(most, held)
    return most
