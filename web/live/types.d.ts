// What this pack uses of ComfyUI's front end, for `tsc --checkJs`. Not loaded by anybody.

/** A row of the strip: one branch of a run. */
export interface Row {
  name: string;
  /** One character per evaluation: c computed, r reused, f forecast. */
  marks: string;
  /** Step of each evaluation, from 0. */
  steps: number[];
  /** Index into `Progress.reasons` of each evaluation. */
  reasons: number[];
  /** Index into `Progress.stages` of each evaluation; empty or absent in a run of one size. */
  stages?: number[];
}

/** The evaluations at one size. */
export interface Stage {
  /** Height and width of the latent; empty where it is not known. */
  size: string;
  /** Whether that is the sampler's size. */
  full: boolean;
  evaluations: number;
  seconds: number;
}

/** One GPU of a run that several share. */
export interface Rank {
  rank: number;
  device: string;
  /** Empty where all are in one. */
  computer: string;
  /** Rows and tokens, in words. */
  held: string;
  /** Bytes that it gave to others. */
  sent: number;
  exchanges: number;
  /** Seconds in exchanges: the transfer, and waiting for others. */
  waited: number;
}

/** What the server sends while a run goes on; see acceleration/host/live_report.py. */
export interface Progress {
  node: string;
  prompt_id: string | null;
  /** Id of the workflow that was queued; null when a client without workflows did. */
  workflow: string | null;
  /** Number of the run within its prompt, from 1. */
  run: number;
  technique: string;
  sampler: string;
  steps: number;
  /** Furthest step begun, from 0. */
  step: number;
  computed: number;
  skipped: number;
  seconds: number;
  seconds_saved: number | null;
  promised?: number;
  residual_bytes: number;
  residual_placement: string;
  /** None for a run in which the node had nothing to skip. */
  rows: Row[];
  reasons: string[];
  /** In order of appearance; none in a run of one size, absent in what an older version kept. */
  stages?: Stage[];
  /** At which sigma the full size begins, and why there. */
  switch?: string;
  /** What is drawn as bars, by its name. */
  counts?: Record<string, number>;
  /** Of Split Across GPUs. */
  ranks?: Rank[];
  outcome: "running" | "finished" | "interrupted" | "replaced" | "switched off" | "refused";
  sentence: string;
}

/** A file as the host names it in the outputs of nodes. */
export interface SavedFile {
  filename: string;
  subfolder?: string;
  type?: string;
}

/** A prompt to queue; see acceleration/performance/presets.py. */
export interface PresetRun {
  name: string;
  prompt: unknown;
}

/** What a comparison of presets gave; see acceleration/host/preset_runs.py. */
export interface PresetResult {
  version: number;
  model: unknown;
  environment: unknown;
  rows: { preset: string; pictures: SavedFile[] }[];
  notes: string[];
  table: { head: string[]; rows: string[][] };
  markdown: string;
  picture: SavedFile;
}

/** What a preset plans for: see acceleration/policies/outlook.py. */
export interface Planned {
  preset: string;
  computed: number;
  steps: number;
  speedup: number;
}

/** What the server sends after a run of Performance Mode; `measured` is added here. */
export interface Outlook {
  node: string;
  workflow: string | null;
  steps: number;
  presets: Planned[];
  computed_cost: number;
  skipped_cost: number;
  approximation?: string;
  seconds?: number;
  /** Seconds of the last run by preset. */
  measured?: Record<string, number>;
}

export interface MenuItem {
  content: string;
  callback: () => void;
}

export interface Widget {
  label?: string;
  name: string;
  value?: unknown;
  serialize?: boolean;
}

export interface GraphNode {
  id: number | string;
  title?: string;
  type: string;
  comfyClass?: string;
  constructor: { comfyClass?: string };
  /** 0 runs, 2 is muted, 4 is bypassed. */
  mode?: number;
  pos: [number, number];
  size: [number, number];
  graph?: Graph | null;
  badges?: (Badge | (() => Badge))[];
  setSize(size: [number, number]): void;
  onSerialize?(data: { size?: [number, number] }): void;
  subgraph?: Graph;
  widgets?: Widget[];
  inputs?: { type: string }[];
  outputs?: { type: string }[];
  getOutputNodes?(slot: number): GraphNode[] | null;
  getInputNode?(slot: number): GraphNode | null;
  removeWidget?(widget: Widget): void;
  addWidget(
    type: string,
    name: string,
    value: unknown,
    callback: () => void,
    options?: { serialize?: boolean },
  ): Widget;
  /** Called with what the node's `ui` holds when it has run. */
  onExecuted?(output: any): void;
  addDOMWidget(
    name: string,
    type: string,
    element: HTMLElement,
    options: {
      serialize?: boolean;
      hideOnZoom?: boolean;
      margin?: number;
      getMinHeight?: () => number;
      getMaxHeight?: () => number;
    },
  ): Widget;
  setDirtyCanvas(foreground: boolean, background?: boolean): void;
}

export interface Badge {
  text: string;
}

export interface Graph {
  id: string;
  nodes: GraphNode[];
  beforeChange?(): void;
  afterChange?(): void;
  trigger?(action: string, parameter: unknown): void;
  _nodes: GraphNode[];
  getNodeById(id: number | string): GraphNode | null | undefined;
}

declare global {
  interface Window {
    LiteGraph: { NODE_TITLE_HEIGHT: number; vueNodesMode?: boolean };
  }
  interface App {
    /** The workflow's outermost graph. */
    rootGraph?: Graph;
    graph: Graph;
    canvas?: {
      graph?: Graph | null;
      processMouseWheel?(event: WheelEvent): void;
      setDirty?(foreground: boolean, background?: boolean): void;
    };
    extensionManager?: {
      setting?: { get(id: string): string | undefined };
      toast?: {
        add(message: { severity: string; summary: string; detail: string; life: number }): void;
      };
    };
    registerExtension(extension: {
      name: string;
      setup?(): void | Promise<void>;
      nodeCreated?(node: GraphNode): void;
      afterConfigureGraph?(): void;
      commands?: { id: string; label: string; icon?: string; function: () => unknown }[];
      keybindings?: {
        commandId: string;
        combo: { key: string; alt?: boolean; shift?: boolean; ctrl?: boolean };
      }[];
      menuCommands?: { path: string[]; commands: string[] }[];
      settings?: {
        id: string;
        name: string;
        category: string[];
        tooltip?: string;
        type: "boolean" | "combo" | (() => HTMLElement);
        options?: string[];
        defaultValue: unknown;
        onChange?: (value: unknown) => void;
      }[];
      getNodeMenuItems?(node: GraphNode): (MenuItem | null)[];
    }): void;
    graphToPrompt(): Promise<{ output: unknown; workflow: unknown }>;
  }
  interface Window {
    LGraphBadge?: new (options: { text: string; fgColor?: string; bgColor?: string }) => Badge;
  }
  interface Api {
    clientId?: string;
    /** Address of a path of the server's API. */
    apiURL(path: string): string;
    fetchApi(path: string, options?: RequestInit): Promise<Response>;
    addEventListener(
      type: string,
      listener: (event: CustomEvent) => void,
      options?: AddEventListenerOptions,
    ): void;
  }
}
