"""Forecast: demand tables split into partitions, each trained in a process of its own, and put together again."""
