/** What all views have. */

/** A part of the page that is shown alone. */
export interface View {
  readonly element: HTMLElement;
  /** Escape was pressed. */
  cancel(): void;
  /** It is seen from now on. */
  shown(): void;
  /** It is not seen any more; a call that runs in it goes on. */
  left(): void;
}
