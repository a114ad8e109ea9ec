"""What a model learned: maps of its single-atom representations, how well they separate, a picture and a page to click in.

DPA-2 paper, §2.6 and Fig. 5. Needs the packages of the extra ``explain``. Begin at
:func:`lamella.use.atlas.atlas.build_atlas`.
"""
