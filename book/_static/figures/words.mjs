// The words of the live figures, in the language that they stand in.

/** Simplified Chinese, in the terms of the course's glossary. */
export const CHINESE = {
  ", ": "、",
  // convolution_step and receptive_field
  "kind": "类型",
  "convolution": "卷积",
  "transposed convolution": "转置卷积",
  "kernel": "卷积核",
  "stride": "步幅",
  "padding": "填充",
  "dilation": "空洞率",
  "step": "步骤",
  "back": "上一步",
  "on": "下一步",
  "taps of output ({row}, {column})": "第 {row} 行第 {column} 列输出的采样点",
  "input pixel ({row}, {column})": "第 {row} 行第 {column} 列的输入像素",
  "outputs so far": "目前的输出",
  "{side} place a row": "每行 {side} 个位置",
  "{side} places a row": "每行 {side} 个位置",
  "{length} + 2 × {padding} pixels, span {span}: {places}. ": "{length} + 2 × {padding} 个像素，卷积核跨 {span} 个：{places}。",
  "Step {now} of 0 to {last}: output ({row}, {column}) is {sum}, the sum of the pixels under the taps.":
    "第 {now} 步（0 至 {last}）：第 {row} 行第 {column} 列的输出是 {sum}，即采样点下各像素之和。",
  "{side} outputs a row": "每行 {side} 个输出",
  "no output is left": "不剩任何输出",
  "{steps} × {stride} + span {span} − 2 × {padding} cut off: {made}. ": "{steps} × {stride} + 卷积核跨度 {span} − 切去的 2 × {padding}：{made}。",
  "Step {now} of 0 to {last}: pixel ({row}, {column}) adds its {number} to every output under its taps.":
    "第 {now} 步（0 至 {last}）：第 {row} 行第 {column} 列的像素把它的 {number} 加到采样点下的每个输出上。",
  "layers": "层数",
  "add a layer": "加一层",
  "remove the last": "去掉最后一层",
  "input": "输入",
  "layer {number}": "第 {number} 层",
  "pixel {number}": "像素 {number}",
  "{number} layer": "{number} 层",
  "{number} layers": "{number} 层",
  "{number} pixel": "{number} 个像素",
  "{number} pixels": "{number} 个像素",
  "{number} input pixel": "{number} 个输入像素",
  "{number} input pixels": "{number} 个输入像素",
  "{number} is seen": "看到 {number} 个",
  "{number} are seen": "看到 {number} 个",
  "{layers}: an output sees across {pixels}, of which {seen}. The next output's field begins {jump} further on.":
    "{layers}：一个输出的视野跨 {pixels}，其中{seen}。下一个输出的感受野从 {jump}之后开始。",
  // four_pixels
  "logit of class {number}": "类别 {number} 的 logit",
  "p of class {number}": "类别 {number} 的 p",
  "−log p of the true class": "真值类别的 −log p",
  "gradient p − y": "梯度 p − y",
  "true: {number}": "真值：{number}",
  "logit of pixel {number}, true class {truth}": "像素 {number} 的 logit，真值类别 {truth}",
  "Mean cross-entropy of the four pixels: {mean}. Gradients: {gradients}.": "四个像素的平均交叉熵：{mean}。梯度：{gradients}。",
  // overlap
  "ground": "背景",
  "missed": "漏检",
  "false alarm": "误报",
  "hit": "命中",
  "right": "向右",
  "down": "向下",
  "radius": "半径",
  "drag the dashed disc": "拖动虚线圆盘",
  "Dice is never below IoU": "Dice 系数从不低于交并比",
  "equal": "相等",
  "IoU": "交并比（IoU）",
  "Dice": "Dice 系数",
  "The predicted disc; arrow keys move it by one pixel": "预测的圆盘；方向键每次把它移动一个像素",
  "{number} to the left": "偏左 {number}",
  "{number} to the right": "偏右 {number}",
  "{number} up": "偏上 {number}",
  "{number} down": "偏下 {number}",
  "Predicted disc of radius {radius}, {aside} and {below}: ": "预测的圆盘半径 {radius}，{aside}，{below}：",
  "hit {hit} pixels, missed {missed}, false alarm {falseAlarm}. IoU {iou}, Dice {dice}.":
    "命中 {hit} 个像素，漏检 {missed} 个，误报 {falseAlarm} 个。交并比 {iou}，Dice 系数 {dice}。",
  // nms
  "disc": "圆盘",
  "square": "方块",
  "triangle": "三角形",
  "IoU threshold": "交并比阈值",
  "least score": "最低得分",
  "all classes together": "所有类别一起",
  "class by class": "逐类别",
  "soft": "软抑制",
  "before: {number} boxes": "之前：{number} 个框",
  "after: {number} boxes": "之后：{number} 个框",
  "NMS, {kind}, threshold {iou}: {before} boxes before, {after} after.": "非极大值抑制，{kind}，阈值 {iou}：之前 {before} 个框，之后 {after} 个。",
  "NMS, {kind}, threshold {iou}: {before} boxes before, {after} after, best first: {list}.":
    "非极大值抑制，{kind}，阈值 {iou}：之前 {before} 个框，之后 {after} 个，得分从高到低：{list}。",
  // samples
  "left": "左边缘",
  "top": "上边缘",
  "width": "宽",
  "height": "高",
  "bins": "格数",
  "samples": "采样点数",
  "aligned": "对齐",
  "RoIPool: an edge is {off} cells off": "RoIPool：边缘最多偏 {off} 个单元",
  "RoIAlign: {number} samples": "RoIAlign：{number} 个采样点",
  "{number} sample": "{number} 个采样点",
  "{number} samples": "{number} 个采样点",
  "{number} sample, all half a cell off": "{number} 个采样点，偏半个单元",
  "{number} samples, all half a cell off": "{number} 个采样点，都偏半个单元",
  "{weight} of cell ({row}, {column})": "第 {row} 行第 {column} 列 {weight}",
  "RoIPool takes rows {top} to {bottom} and columns {left} to {right}; an edge is {off} cells off. ":
    "RoIPool 取第 {top} 至 {bottom} 行、第 {left} 至 {right} 列；边缘最多偏 {off} 个单元。",
  "RoIAlign takes {samples}; the first, at row {row} and column {column}, is {weights}.":
    "RoIAlign 取 {samples}；第一个在行 {row}、列 {column} 处，各单元的权重是：{weights}。",
};

/** The language around the figures: a page that is not translated says so in an element around them. */
function language() {
  return globalThis.document?.querySelector("[data-live-figure]")?.closest("[lang]")?.lang ?? "en";
}

/** `text` in the page's language, or as it is, with `{names}` replaced by their values. */
export function say(text, values = {}) {
  const known = language() === "zh-CN" ? CHINESE : {};
  return (known[text] ?? text).replaceAll(/\{(\w+)\}/g, (_, name) => values[name]);
}
