// What is used of JupyterLab's packages; they are the page's own, never bundled. Written down here instead of installed:
// the packages are 90 MB, and these lines agree with those of JupyterLab 4.6.
declare const VERSION: string;
declare const STYLE: string;

declare module "@lumino/coreutils" {
  export class Token<T> {
    constructor(name: string, description?: string);
    readonly name: string;
    private readonly _tokenStructuralPropertyT: T;
  }
}

declare module "@lumino/signaling" {
  export interface ISignal<T, U> {
    connect(slot: (sender: T, args: U) => void): boolean;
    disconnect(slot: (sender: T, args: U) => void): boolean;
  }
  export class Signal<T, U> implements ISignal<T, U> {
    constructor(sender: T);
    connect(slot: (sender: T, args: U) => void): boolean;
    disconnect(slot: (sender: T, args: U) => void): boolean;
    emit(args: U): void;
  }
}

declare module "@lumino/widgets" {
  import type { ISignal } from "@lumino/signaling";
  interface Title {
    label: string;
    caption: string;
    icon: unknown;
    closable: boolean;
  }
  export class Widget {
    constructor(options?: { node?: HTMLElement });
    readonly node: HTMLElement;
    readonly title: Title;
    readonly isVisible: boolean;
    readonly isAttached: boolean;
    readonly isDisposed: boolean;
    readonly disposed: ISignal<this, void>;
    id: string;
    addClass(name: string): void;
    dispose(): void;
    close(): void;
    activate(): void;
    protected onAfterShow(message: unknown): void;
    protected onActivateRequest(message: unknown): void;
  }
}

declare module "@jupyterlab/application" {
  import type { Token } from "@lumino/coreutils";
  import type { ISignal } from "@lumino/signaling";
  import type { Widget } from "@lumino/widgets";
  import type { ServiceManager } from "@jupyterlab/services";
  import type { LabIcon } from "@jupyterlab/ui-components";
  interface Args {
    readonly [name: string]: unknown;
  }
  interface CommandOptions {
    label: string;
    icon?: LabIcon;
    isEnabled?: (args: Args) => boolean;
    execute: (args: Args) => unknown;
  }
  export interface JupyterFrontEnd {
    readonly commands: {
      addCommand(id: string, options: CommandOptions): unknown;
      execute(id: string, args?: { [name: string]: string }): Promise<unknown>;
      notifyCommandChanged(id?: string): void;
    };
    readonly serviceManager: ServiceManager.IManager;
    readonly shell: {
      add(widget: Widget, area?: string, options?: { rank?: number; type?: string; activate?: boolean }): void;
      activateById(id: string): void;
      readonly currentWidget: Widget | null;
    };
    readonly restored: Promise<unknown>;
  }
  export interface JupyterFrontEndPlugin<T> {
    id: string;
    description?: string;
    autoStart?: boolean;
    requires?: Token<any>[];
    optional?: Token<any>[];
    provides?: Token<T>;
    activate: (app: JupyterFrontEnd, ...args: any[]) => T | Promise<T>;
  }
  export interface ILayoutRestorer {
    add(widget: Widget, name: string): void;
    restore(tracker: any, options: { command: string; args: (widget: any) => any; name: (widget: any) => string }): Promise<unknown>;
  }
  export const ILayoutRestorer: Token<ILayoutRestorer>;
  export interface ILabShell {
    readonly currentChanged: ISignal<unknown, unknown>;
  }
  export const ILabShell: Token<ILabShell>;
}

declare module "@jupyterlab/services" {
  import type { ISignal } from "@lumino/signaling";
  export namespace ServerConnection {
    interface ISettings {
      readonly baseUrl: string;
      readonly token: string;
    }
    function makeRequest(url: string, init: RequestInit, settings: ISettings): Promise<Response>;
  }
  export namespace KernelAPI {
    function interruptKernel(id: string, settings?: ServerConnection.ISettings): Promise<void>;
  }
  export namespace ServiceManager {
    interface IManager {
      readonly serverSettings: ServerConnection.ISettings;
      readonly events: { readonly stream: ISignal<unknown, any> };
      readonly kernels: { shutdown(id: string): Promise<void> };
      readonly sessions: { shutdown(id: string): Promise<void>; running(): IterableIterator<{ id: string; kernel: { id: string } | null }> };
    }
  }
}

declare module "@jupyterlab/apputils" {
  import type { Token } from "@lumino/coreutils";
  import type { Widget } from "@lumino/widgets";
  export interface ICommandPalette {
    addItem(options: { command: string; category: string; args?: any }): unknown;
  }
  export const ICommandPalette: Token<ICommandPalette>;
  export namespace Notification {
    interface IOptions {
      autoClose?: number | false;
      actions?: { label: string; caption?: string; displayType?: "default" | "accent" | "warn" | "link"; callback: (event: MouseEvent) => void }[];
    }
    function emit(message: string, type?: "default" | "success" | "info" | "warning" | "error" | "in-progress", options?: IOptions): string;
  }
  export namespace Dialog {
    interface IButton {
      accept: boolean;
    }
    function cancelButton(options?: { label?: string }): IButton;
    function warnButton(options?: { label?: string }): IButton;
  }
  export function showErrorMessage(title: string, error: Error): Promise<void>;
  export function showDialog(options: { title: string; body: string; buttons: Dialog.IButton[] }): Promise<{ button: Dialog.IButton }>;
  export class WidgetTracker<T extends Widget> {
    constructor(options: { namespace: string });
    add(widget: T): Promise<void>;
    save(widget: T): Promise<void>;
    find(test: (widget: T) => boolean): T | undefined;
    readonly currentWidget: T | null;
  }
}

declare module "@jupyterlab/coreutils" {
  export namespace URLExt {
    function join(...parts: string[]): string;
  }
}

declare module "@jupyterlab/running" {
  import type { Token } from "@lumino/coreutils";
  import type { ISignal } from "@lumino/signaling";
  import type { LabIcon } from "@jupyterlab/ui-components";
  export namespace IRunningSessions {
    interface IRunningItem {
      open?: () => void;
      shutdown?: () => void;
      icon: () => LabIcon | string;
      label: () => string;
      labelTitle?: () => string;
      detail?: () => string;
      name?: () => string;
    }
    interface IManager {
      name: string;
      shutdownAll(): void;
      running(options: { mode: "tree" | "list" }): IRunningItem[];
      refreshRunning(): void;
      runningChanged: ISignal<any, any>;
      shutdownLabel?: string;
      shutdownAllLabel?: string;
      shutdownAllConfirmationText?: string;
    }
  }
  export interface IRunningSessionManagers {
    add(manager: IRunningSessions.IManager): unknown;
  }
  export const IRunningSessionManagers: Token<IRunningSessionManagers>;
}

declare module "@jupyterlab/settingregistry" {
  import type { Token } from "@lumino/coreutils";
  import type { ISignal } from "@lumino/signaling";
  export namespace ISettingRegistry {
    interface ISettings {
      readonly changed: ISignal<this, void>;
      get(key: string): { composite: any };
    }
  }
  export interface ISettingRegistry {
    load(plugin: string): Promise<ISettingRegistry.ISettings>;
  }
  export const ISettingRegistry: Token<ISettingRegistry>;
}

declare module "@jupyterlab/statusbar" {
  import type { Token } from "@lumino/coreutils";
  import type { ISignal } from "@lumino/signaling";
  import type { Widget } from "@lumino/widgets";
  export interface IStatusBar {
    registerStatusItem(
      id: string,
      item: { item: Widget; align?: "left" | "middle" | "right"; rank?: number; isActive?: () => boolean; activeStateChanged?: ISignal<any, void> },
    ): unknown;
  }
  export const IStatusBar: Token<IStatusBar>;
}

declare module "@jupyterlab/ui-components" {
  export class LabIcon {
    constructor(options: { name: string; svgstr: string });
    readonly name: string;
  }
}
