"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.scorecard");
  if (!table) return;
  const rows = [...table.tBodies[0].rows];
  const boxes = [...document.querySelectorAll(".filters [data-by]")];
  const count = document.querySelector(".filters output");
  const show = () => {
    let left = 0;
    for (const row of rows) {
      const fits = boxes.every((box) => {
        const wanted = box.value.toLowerCase();
        if (!wanted) return true;
        if (box.dataset.by === "text") return row.textContent.toLowerCase().includes(wanted);
        return row.dataset[box.dataset.by] === box.value;
      });
      row.hidden = !fits;
      left += fits;
    }
    count.textContent = `${left} of ${rows.length} claims`;
  };
  boxes.forEach((box) => box.addEventListener("input", show));
  show();
});
