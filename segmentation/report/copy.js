// Buttons with data-copy="ID" copy the text of the element with that id, and say so.
for (const button of document.querySelectorAll("button[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  const said = document.getElementById(`${button.dataset.copy}-said`);
  button.hidden = false;
  button.addEventListener("click", async () => {
    let copied = true;
    try {
      await navigator.clipboard.writeText(source.innerText);
    } catch {
      // A page opened from disk may not have the clipboard: select the text, and copy it the old way.
      getSelection().selectAllChildren(source);
      copied = document.execCommand("copy");
    }
    said.textContent = copied ? "Copied." : "Selected: press Ctrl+C or \u2318C.";
  });
}
