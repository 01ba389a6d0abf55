"""The pages: `answer_page` for people, `admin_pages`, `decision_pages` and `tree_pages` for whoever
runs the experiment.

`app` puts them together, `access` decides who may open them, `service` reads and writes the log.
Nothing here imports jax.
"""
