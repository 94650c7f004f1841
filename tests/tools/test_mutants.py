"""How the score of a mutation run is told."""

from tools import mutants

RESULTS = """
    ipybatch.engine.rules.breaker.xǁBreakerǁfail__mutmut_1: killed
    ipybatch.engine.rules.breaker.xǁBreakerǁfail__mutmut_2: survived
    ipybatch.engine.rules.breaker.xǁBreakerǁfail__mutmut_3: caught by type check
    ipybatch.engine.rules.retry.x_classify__mutmut_1: timeout
    ipybatch.engine.rules.retry.x_classify__mutmut_2: no tests
    ipybatch.engine.rules.retry.x_classify__mutmut_3: not checked
"""


def test_score_counts_what_was_tried():
    """A mutant that no test reaches is not noticed; one that was not tried counts for nothing."""
    assert mutants.report(mutants.statuses(RESULTS)) == (
        "ipybatch.engine.rules.breaker.xǁBreakerǁfail__mutmut_2: survived\n"
        "ipybatch.engine.rules.retry.x_classify__mutmut_2: no tests\n"
        "    2 of     3 noticed,  67%  ipybatch.engine.rules.breaker\n"
        "    1 of     2 noticed,  50%  ipybatch.engine.rules.retry\n"
        "    3 of     5 noticed,  60%  all"
    )
