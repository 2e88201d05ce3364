"""The report of a campaign: the paper's tables, the pictures that the track is ranked by, one page.

work       what has to be built for it, and building it       (stages of the store, so a killed run goes on)
measure    reading what is built into `results`
tables     results -> tables: rows, intervals, the paper's figures beside ours
pictures   results -> figures
page, text the same as HTML, Markdown, CSV and JSON
"""
