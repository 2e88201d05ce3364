"""Report on a campaign: the paper's tables, pictures of quality and size, one page.

system_plans      the stages that each system needs, and building the missing ones
measure           artifacts of the store -> results
results           the results as plain values
open_set_tables, blind_set_tables   results -> tables
pictures          results -> pictures, light and dark
pages             tables and pictures -> HTML
exports, terminal_summary           the same as Markdown, CSV, JSON and text
build_report      the order of all this
"""
