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
  residual_bytes: number;
  residual_placement: string;
  /** None for a run in which the node had nothing to skip. */
  rows: Row[];
  reasons: string[];
  outcome: "running" | "finished" | "interrupted" | "replaced" | "switched off" | "refused";
  sentence: string;
}

export interface Widget {
  name: string;
  serialize?: boolean;
}

export interface GraphNode {
  id: number | string;
  title?: string;
  comfyClass?: string;
  /** 0 runs, 2 is muted, 4 is bypassed. */
  mode?: number;
  pos: [number, number];
  size: [number, number];
  graph?: Graph | null;
  setSize(size: [number, number]): void;
  onSerialize?(data: { size?: [number, number] }): void;
  subgraph?: Graph;
  widgets?: Widget[];
  removeWidget?(widget: Widget): void;
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

export interface Graph {
  id: string;
  _nodes: GraphNode[];
  getNodeById(id: number | string): GraphNode | null | undefined;
}

declare global {
  interface Window {
    LiteGraph: { NODE_TITLE_HEIGHT: number };
  }
  interface App {
    extensionManager?: { setting?: { get(id: string): string | undefined } };
    /** The workflow's outermost graph. */
    rootGraph?: Graph;
    graph: Graph;
    canvas?: { processMouseWheel?(event: WheelEvent): void };
    registerExtension(extension: {
      name: string;
      setup?(): void | Promise<void>;
      nodeCreated?(node: GraphNode): void;
      afterConfigureGraph?(): void;
    }): void;
  }
  interface Api {
    addEventListener(
      type: string,
      listener: (event: CustomEvent) => void,
      options?: AddEventListenerOptions,
    ): void;
  }
}
