"""The forecast of time, memory and disk of a campaign's steps on a device, counted from the shapes of its model.

It separates minutes from hours and hours from days, and says whether a card's memory suffices. It promises no more.
"""
