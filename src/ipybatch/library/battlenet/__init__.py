"""Battle.net: a source of guilds and characters.

Read in this order:

source  `BattleNet`: requests, records and limits
names   guilds and characters as items, and their names in URLs
tokens  OAuth access tokens, and the server's clock
"""
