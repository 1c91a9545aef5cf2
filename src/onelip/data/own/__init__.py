"""Data of one's own: folders of images, arrays, tables, and data sets of the hub."""

from onelip.data.own.contents import Contents
from onelip.data.own.source import Source, holds_own_data, read_source

__all__ = ["Contents", "Source", "holds_own_data", "read_source"]
