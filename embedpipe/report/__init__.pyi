from .drawing.picture import Picture as Picture
from .pictures.confusion import draw_confusion as draw_confusion
from .pictures.neighbours import draw_neighbours as draw_neighbours
from .tables import write_table as write_table
