// A photograph may be dropped anywhere on the page, or pasted: it goes the upload button's way.
(() => {
  const give = (file, name) => {
    const input = document.querySelector("#cp-upload input[type=file], input#cp-upload")
      || document.querySelector("input[type=file]");
    if (!input || !file) return;
    const files = new DataTransfer();
    files.items.add(name ? new File([file], name, { type: file.type }) : file);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const hasFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  let depth = 0;
  const shade = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("cp-dropping", depth > 0);
  };
  addEventListener("dragenter", (event) => hasFiles(event) && shade(1));
  addEventListener("dragleave", (event) => hasFiles(event) && shade(-1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    shade(-depth);
    give(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files || [])][0];
    if (file) give(file, "pasted." + (file.type.split("/")[1] || "png"));
  });
})();
