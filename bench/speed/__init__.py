"""`python -m bench.speed`: the same meta-gradients by every engine, side by side on this machine.

work.py     what is computed, and the other pieces of work that show how cost grows
engines.py  who computes it: ours, `higher`, and peers where they are installed (peers.py)
measure.py  time, memory and error of one engine on one piece of work
process.py  each measurement in a process of its own, which may fail or outgrow the machine
fit.py      what would not fit is not started
errors.py   what each precision costs in exactness      imitated.py   bf16 by rounding
rates.py    what this machine can do      floor.py    the least time that it could take
report.py   table and JSON        picture.py  the picture
"""
