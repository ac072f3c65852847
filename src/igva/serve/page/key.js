// The API key of a server that has one: asked for in a dialog, kept for this tab.

const NAME = "igva-key";
const dialog = document.getElementById("key");
const input = document.getElementById("key-input");
const wrong = document.getElementById("key-error");

let asking = null;

export const key = {
  stored: () => sessionStorage.getItem(NAME),

  /**
   * Ask the visitor; requests that are refused at the same time share one dialog.
   *
   * @param {string | null} refused - the key that did not do
   * @returns {Promise<boolean>} whether there is another one now
   */
  askFor(refused) {
    if (refused !== key.stored()) return Promise.resolve(true);
    asking ??= open(Boolean(refused)).finally(() => (asking = null));
    return asking;
  },
};

function open(again) {
  sessionStorage.removeItem(NAME);
  wrong.hidden = !again;
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "given"), { once: true });
  });
}

dialog.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(NAME, input.value.trim());
  dialog.close("given");
});
document.getElementById("key-cancel").addEventListener("click", () => dialog.close("none"));
dialog.addEventListener("cancel", () => (dialog.returnValue = "none"));
