"""The benchmark gate: is HEAD slower than BASE? (ci/gate.sh)

Both are built as wheels and run HEAD's fixed-work suites (`build`). A machine's speed changes by more than
10% from one second to the next, so the two take turns of a millisecond on one core (`sides`, `plugin`), and
the least that a benchmark ever took counts (`compare`). Addresses differ from process to process and move
the figures by some percent: each round has new processes. What seems slower is measured again: noise passes,
a regression stays.
"""
