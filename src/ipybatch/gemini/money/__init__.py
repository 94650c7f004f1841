"""Money: what calls cost, may cost and have cost.

prices    USD per token, by model and lane
credits   credits per operation, and accounts of credits
tokens    how many tokens a call has, and may have
usage     recorded calls
budget    what is reserved for calls, and what of it is spent
quote     cost and duration of work, lane by lane
"""
