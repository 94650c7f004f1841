"""Download: a file from the kernel into the browser's downloads, in one step and of any size.

A link that holds its data would be pressed a second time, and stay in the
saved notebook with all it holds.  Messages of widgets have no limit of size.
"""

from __future__ import annotations

import anywidget
import traitlets

# So little that it needs no building; of several pages that show the kernel, the one that is looked at saves it.
_ESM = """
export default {
  initialize({ model }) {
    const save = (_, buffers) => {
      if (document.hidden) return;
      const url = URL.createObjectURL(new Blob(buffers, { type: "text/csv" }));
      const link = document.createElement("a");
      Object.assign(link, { href: url, download: model.get("name") });
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    };
    model.on("msg:custom", save);
    return () => model.off("msg:custom", save);
  },
  render() {},
};
"""


class Download(anywidget.AnyWidget):
    """What shows nothing, and hands files to the browser.

    Attributes:
        name: Of the file.
    """

    _esm = _ESM
    name = traitlets.Unicode("").tag(sync=True)

    def offer(self, name: str, data: bytes) -> None:
        """Have the browser save a file."""
        self.name = name
        self.send({}, buffers=[data])
