"""Offline prediction. In: a PredictPlan. Out: a folder of Parquet files, and a manifest of what they are.

The input is divided into parts, ranges of rows of its files. A part that is done is a file, which appears
whole, so that a command that was killed goes on with those that are missing. `run.py` is the driver,
`part.py` does one part, `pool.py` has Ray Data do many.
"""
