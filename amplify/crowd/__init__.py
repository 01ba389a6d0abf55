"""Simulated people, who use the same pages as everybody, through the same HTTP interface.

`habits`: how careful and how fast they are. `page_reader`: what a program reads off a page.
`simulated_policy`: what somebody does next. `simulated`: people at work, each with a browser.
"""
