from keras.src.legacy.preprocessing.image import Iterator
from PIL import Image

from asl_fast.images import file_types


def test_kerass_list_is_kerass():
    assert Iterator.white_list_formats == file_types.KERAS_SUFFIXES


def test_pillow_may_open_each_listed_file_by_its_content():
    Image.init()
    opened = {Image.EXTENSION[suffix] for suffix in file_types.SUFFIXES}
    assert opened == set(file_types.FORMATS)
