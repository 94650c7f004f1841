// Tool: a small button of one icon, with its name in the tooltip.
import { attribute, h } from "../../src/dom";
import { icon, type IconName } from "../../src/icons";

export function tool(name: IconName, label: string, press: () => void): HTMLButtonElement {
  const button = h("button", `tool ${name}`, icon(name));
  button.type = "button";
  button.tabIndex = -1;
  title(button, label);
  button.addEventListener("click", press);
  return button;
}

export function title(button: HTMLElement, label: string): void {
  attribute(button, "title", label);
  attribute(button, "aria-label", label);
}
