// Sign: the extension's icon: three bars, each a little further than the one below.
import { LabIcon } from "@jupyterlab/ui-components";

const BARS = "M3 5.5h14M3 11h9.5M3 16.5h5.5";
const REST = "M17 5.5h2M12.5 11h6.5M8.5 16.5h10.5";

export const sign = new LabIcon({
  name: "ipybatch:sessions",
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 22 22"><g fill="none" class="jp-icon3" stroke="#616161" stroke-width="3" stroke-linecap="round"><path opacity=".35" d="${REST}"/><path d="${BARS}"/></g></svg>`,
});
