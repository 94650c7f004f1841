"""Money: what calls cost, may cost and have cost.

prices    USD per token, by model and lane
credits   credits per operation, and accounts of credits
tokens    how many tokens a call has
usage     recorded calls, and the budget of a session
quote     cost and duration of work, lane by lane
"""
