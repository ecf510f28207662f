"""`python -m bench.speed`: time and memory of every engine on the same meta-gradients.

work.py                what is computed: one outer step, and the same step grown in one direction
engines.py             the engines, torchopt_engine.py if TorchOpt is installed
measure.py             time, memory and error of one engine on one piece of work
memory_prediction.py   work that would not fit is not started
precision_errors.py    the error of each precision, with bf16_emulation.py on a CPU
rates.py, roofline.py  rates of this machine, and the least time that it could take
report.py, picture.py  table and JSON, and the picture
"""
